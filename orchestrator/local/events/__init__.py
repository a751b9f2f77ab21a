"""Events about changes of resources, and their delivery to files, commands, webhooks and queues."""

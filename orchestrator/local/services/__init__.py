"""Services: each module creates the handlers of one."""

from microjobs_orchestrator.local.protocols.answer import Service as Service

"""The two workflows, plain boto3 programs, and what carries them: steps that can be resumed, watched and stopped."""

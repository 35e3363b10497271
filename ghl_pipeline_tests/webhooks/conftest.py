"""What tests of events share: a running receiver."""

from ghl_pipeline_tests.fixtures.receiver import receiver, sender_keys

__all__ = ["receiver", "sender_keys"]

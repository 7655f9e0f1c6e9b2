"""The configuration as frozen, typed values; every rule is checked once, before any input.

Every error names the setting and the rule, and never shows a secret.
"""

from target_moengage_cohort.settings.addresses import is_loopback
from target_moengage_cohort.settings.declared import Removals, Settings, StreamMapping
from target_moengage_cohort.settings.load import Config, load

__all__ = ["Config", "Removals", "Settings", "StreamMapping", "is_loopback", "load"]

"""The configuration as frozen, typed values; every rule is checked once, before any input.

Every error names the setting and the rule, and never shows a secret.
"""

from target_moengage_cohort.settings.addresses import is_loopback
from target_moengage_cohort.settings.declared import Settings, json_schema
from target_moengage_cohort.settings.keys import Removals
from target_moengage_cohort.settings.load import Config, load
from target_moengage_cohort.settings.mapping import Mapping

__all__ = ["Config", "Mapping", "Removals", "Settings", "is_loopback", "json_schema", "load"]

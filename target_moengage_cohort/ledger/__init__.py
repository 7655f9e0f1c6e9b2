"""The record of what MoEngage has accepted: each cohort's accepted and unconfirmed members.

`engines` opens the ledgers of a destination, `interface` says what they can do, and `records` has
the values that they take and return.
"""

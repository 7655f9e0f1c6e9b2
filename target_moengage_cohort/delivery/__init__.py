"""Delivery: changes of membership become packed, paced, ordered and retried requests to MoEngage.

Other folders import `delivery`, the only door, and `ports`, what they give to it.
"""

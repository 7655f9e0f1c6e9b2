"""Delivery: changes of membership become packed, paced, ordered and retried requests to MoEngage.

Other packages import `delivery`, the entry point, and `ports`, the interfaces of its arguments.
"""

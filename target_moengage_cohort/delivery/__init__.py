"""Delivery: changes of membership → packed, paced, ordered and retried requests to MoEngage.

Four layers, each testable by itself: `packing` (pure: bytes and order), `pace` (the rate limit
that processes share), `client` (one attempt, classified), `dispatcher` (who goes when, retries).
"""

"""Delivery: changes of membership → packed, paced, ordered and retried requests to MoEngage.

In layers: `packing` (pure: bytes and order), `lanes` (what waits for each cohort), `pace` (the rate
limit that processes share), `client` (one attempt), `answers` (what its answer means), `attempts`
(retries, isolation), `dispatcher` (who goes when).
"""

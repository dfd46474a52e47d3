-- collector: receiver
-- scope: instance
-- interval: 60
-- role: standby
-- metric: receiver_message_age_seconds unit=s category=availability direction=above warning=60 critical=300
--   Time since the last message from the server that this standby streams from; no value while disconnected. Labels:
--   that server, and the slot and application_name of this standby.
SELECT
    -- Values are not quoted here: one ends where the next option starts.
    regexp_replace(
        coalesce(
            substring(' ' || r.conninfo FROM ' application_name=(.*)'),
            substring(r.conninfo FROM ' fallback_application_name=(.*)')
        ),
        ' [a-z_]+=.*', ''
    ) AS application_name,
    r.slot_name AS slot,
    concat(r.sender_host, ':', r.sender_port) AS sender,
    greatest(extract(EPOCH FROM clock_timestamp() - r.last_msg_receipt_time), 0) AS receiver_message_age_seconds
FROM pg_stat_wal_receiver AS r
WHERE r.status = 'streaming'

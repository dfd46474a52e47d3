-- object: function pgops.renew_shapes()
-- requires: shape_retention
CREATE OR REPLACE FUNCTION pgops.renew_shapes()
RETURNS integer
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Removes the names of shapes whose rounds have another retention from now on, so that they are defined anew; returns
-- how many. Rounds already stored stay where they are.
    WITH renewed AS (
        UPDATE pgops.shape AS h SET fingerprint = h.fingerprint || uuid_send(gen_random_uuid())
        WHERE octet_length(h.fingerprint) = 32 AND h.keep_days <> pgops.shape_retention(h.shape_id)
        RETURNING h.shape_id
    )

    SELECT count(*)::integer FROM renewed;
$$;

REVOKE ALL ON FUNCTION pgops.renew_shapes() FROM PUBLIC;

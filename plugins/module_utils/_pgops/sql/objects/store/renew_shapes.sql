-- object: function pgops.renew_shapes()
-- requires: shape_retention
CREATE OR REPLACE FUNCTION pgops.renew_shapes()
RETURNS integer
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Takes the names from shapes whose rounds are to be kept for another time from now on, so that they are defined anew;
-- returns how many. What has been stored stays where it is.
    WITH renewed AS (
        UPDATE pgops.shape AS h SET fingerprint = h.fingerprint || uuid_send(gen_random_uuid())
        WHERE octet_length(h.fingerprint) = 32 AND h.keep_days <> pgops.shape_retention(h.shape_id)
        RETURNING h.shape_id
    )

    SELECT count(*)::integer FROM renewed;
$$;

REVOKE ALL ON FUNCTION pgops.renew_shapes() FROM PUBLIC;

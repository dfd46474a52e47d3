-- object: function pgops.compared(double precision, text, double precision)
CREATE OR REPLACE FUNCTION pgops.compared(p_value double precision, p_operator text, p_with double precision)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
AS $$
-- Whether the value stands in this relation; NULL where one of them is unknown.
    SELECT
        CASE p_operator
            WHEN '>' THEN p_value > p_with
            WHEN '>=' THEN p_value >= p_with
            WHEN '<' THEN p_value < p_with
            WHEN '<=' THEN p_value <= p_with
            WHEN '=' THEN p_value = p_with
            WHEN '!=' THEN p_value <> p_with
        END;
$$;

REVOKE ALL ON FUNCTION pgops.compared(double precision, text, double precision) FROM PUBLIC;

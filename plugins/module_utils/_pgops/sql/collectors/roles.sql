-- collector: roles
-- scope: instance
-- interval: 3600
-- metric: superusers unit=count category=security
--   Superusers that may log in, including the one of initdb. Each of them can do anything.
-- metric: login_roles unit=count category=security
--   Roles that may log in.
-- metric: expired_login_roles unit=count category=security
--   Login roles with an expired password: a user is locked out, or the role can be dropped.
SELECT
    count(*) FILTER (WHERE r.rolsuper) AS superusers,
    count(*) AS login_roles,
    count(*) FILTER (WHERE r.rolvaliduntil < statement_timestamp()) AS expired_login_roles
FROM pg_roles AS r
WHERE r.rolcanlogin

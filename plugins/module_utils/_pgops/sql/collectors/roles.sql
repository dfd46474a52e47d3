-- collector: roles
-- scope: instance
-- interval: 3600
-- metric: superusers unit=count category=security
--   Roles that are superusers and may log in, the one of initdb among them: each of them can do anything.
-- metric: login_roles unit=count category=security
--   Roles that may log in.
-- metric: expired_login_roles unit=count category=security
--   Roles that may log in, but whose password has expired: somebody is locked out, or they can go.
SELECT
    count(*) FILTER (WHERE r.rolsuper) AS superusers,
    count(*) AS login_roles,
    count(*) FILTER (WHERE r.rolvaliduntil < statement_timestamp()) AS expired_login_roles
FROM pg_roles AS r
WHERE r.rolcanlogin

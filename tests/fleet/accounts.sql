-- A small database: ordinary tables, foreign keys, a few rows.
CREATE DATABASE accounts;
\connect accounts

CREATE ROLE accounts_owner NOLOGIN;
ALTER DATABASE accounts OWNER TO accounts_owner;
CREATE SCHEMA crm AUTHORIZATION accounts_owner;
SET ROLE accounts_owner;

CREATE TABLE crm.account (
    account_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE crm.login (
    account_id bigint NOT NULL REFERENCES crm.account (account_id),
    at timestamptz NOT NULL,
    address inet
);

INSERT INTO crm.account (email)
SELECT format('person%s@example.com', n) FROM generate_series(1, 2000) AS g (n);

INSERT INTO crm.login (account_id, at, address)
SELECT n % 2000 + 1, timestamptz '2025-01-01 00:00Z' + n * interval '1 minute', inet '192.0.2.0' + n % 256
FROM generate_series(1, 10000) AS g (n);

RESET ROLE;

-- Names that break whatever quotes by hand, and objects that catch whatever leaves names unqualified.
CREATE DATABASE "we""ird db";
\connect "we""ird db"

CREATE SCHEMA "Sch'ema; %s {{ x }}";
CREATE TABLE "Sch'ema; %s {{ x }}"."Ta""ble \n, 表" (
    "Col umn" integer PRIMARY KEY,
    "select" text
);
CREATE INDEX "in dex""%" ON "Sch'ema; %s {{ x }}"."Ta""ble \n, 表" ("select");
INSERT INTO "Sch'ema; %s {{ x }}"."Ta""ble \n, 表"
SELECT n, n::text FROM generate_series(1, 1000) AS g (n);

CREATE TABLE public.pg_stat_activity (pid integer);
CREATE FUNCTION public.pg_size_pretty(integer) RETURNS text LANGUAGE sql AS $$SELECT 'not yours'$$;

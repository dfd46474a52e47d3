-- The busy database: partitions, dead rows, an index twice, an unused one, a sequence near its end.
CREATE DATABASE shop;
\connect shop

CREATE TABLE product (
    product_id integer PRIMARY KEY,
    title text NOT NULL,
    price numeric(10, 2) NOT NULL,
    properties jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX product_title ON product (title);
CREATE INDEX product_title_again ON product (title);
CREATE INDEX product_properties ON product USING gin (properties);

CREATE TABLE purchase (
    purchase_id bigint GENERATED ALWAYS AS IDENTITY,
    product_id integer NOT NULL REFERENCES product (product_id),
    bought_on date NOT NULL,
    amount integer NOT NULL CHECK (amount > 0),
    PRIMARY KEY (purchase_id, bought_on)
) PARTITION BY RANGE (bought_on);
CREATE TABLE purchase_2025_h1 PARTITION OF purchase FOR VALUES FROM ('2025-01-01') TO ('2025-07-01');
CREATE TABLE purchase_2025_h2 PARTITION OF purchase FOR VALUES FROM ('2025-07-01') TO ('2026-01-01');

CREATE TABLE basket (
    basket_id integer PRIMARY KEY,
    filler text NOT NULL,
    changes integer NOT NULL DEFAULT 0
) WITH (autovacuum_enabled = FALSE);

CREATE SEQUENCE invoice_number AS smallint START 32000;
SELECT nextval('invoice_number');

INSERT INTO product (product_id, title, price)
SELECT n, format('Product %s', n), n % 100 + 0.99 FROM generate_series(1, 5000) AS g (n);

INSERT INTO purchase (product_id, bought_on, amount)
SELECT n % 5000 + 1, date '2025-01-01' + n % 365, n % 9 + 1 FROM generate_series(1, 20000) AS g (n);

INSERT INTO basket (basket_id, filler)
SELECT n, repeat('x', 200) FROM generate_series(1, 5000) AS g (n);
UPDATE basket SET changes = changes + 1;
UPDATE basket SET changes = changes + 1 WHERE basket_id % 2 = 0;

CREATE MATERIALIZED VIEW sold AS
SELECT product_id, sum(amount) AS amount FROM purchase GROUP BY product_id;

ANALYZE;

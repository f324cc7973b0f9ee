-- Hashes, lists, sets, sorted sets and streams: one row per element. docs: src/ARCHITECTURE.md

-- content: under which number the elements stand. A string or a deleted key may
-- still carry the number of what it replaced, until the sweep takes it.
ALTER TABLE freshet.keys
    ADD COLUMN content bigint,
    ADD COLUMN size    bigint,      -- number of elements
    ADD COLUMN meta    bytea;       -- what the type keeps beside its elements

-- Proxies take numbers by the thousand.
CREATE SEQUENCE freshet.content_ids INCREMENT 1000;

-- field: a hash's field, a set's or sorted set's member, a list's position, a
-- stream's entry id. One longer than 1024 bytes is its first 1024 bytes and its
-- SHA-256, and stands whole in name.
CREATE TABLE freshet.element (
    content bigint NOT NULL,
    field   bytea  NOT NULL,
    rank    double precision,       -- a score; a hash field's place in the order of insertion
    value   bytea,                  -- NULL for the members of sets and sorted sets
    name    bytea,
    PRIMARY KEY (content, field)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- The order of sorted sets; a place to start from at random in sets.
CREATE INDEX element_rank ON freshet.element (content, rank, field)
    WHERE value IS NULL AND rank IS NOT NULL;
CREATE INDEX element_random ON freshet.element (content, (('x' || substr(md5(field), 1, 8))::bit(32)::integer))
    WHERE value IS NULL AND rank IS NULL;

DO $$
BEGIN
    ALTER TABLE freshet.element ALTER COLUMN value SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL; -- a server built without lz4 keeps its default
END $$;

-- Contents that no key has any more; their elements are deleted in the background.
CREATE TABLE freshet.garbage (content bigint PRIMARY KEY);

CREATE OR REPLACE VIEW freshet.live_keys AS
SELECT db,
       freshet.readable(key) AS key,
       CASE kind WHEN 0 THEN 'string' WHEN 1 THEN 'hash' WHEN 2 THEN 'list' WHEN 3 THEN 'set'
                 WHEN 4 THEN 'zset' WHEN 5 THEN 'stream' END AS type,
       version,
       CASE WHEN expires_ms < 253402300800000 THEN to_timestamp(expires_ms / 1000.0)
            WHEN expires_ms IS NOT NULL THEN 'infinity' END AS expires_at,
       key AS key_bytes
  FROM freshet.keys
 WHERE kind IS NOT NULL AND (expires_ms IS NULL OR expires_ms > freshet.now_ms());

-- Live hashes, a row for each field.
CREATE VIEW freshet.hashes AS
SELECT l.db, l.key, freshet.readable(coalesce(e.name, e.field)) AS field, freshet.readable(e.value) AS value,
       l.version, l.expires_at, l.key_bytes, coalesce(e.name, e.field) AS field_bytes, e.value AS value_bytes
  FROM freshet.live_keys l
  JOIN freshet.keys k ON k.db = l.db AND k.key = l.key_bytes
  JOIN freshet.element e ON e.content = k.content
 WHERE k.kind = 1;

-- Live lists, a row for each item, numbered from 0.
CREATE VIEW freshet.lists AS
SELECT l.db, l.key, row_number() OVER (PARTITION BY k.content ORDER BY e.field) - 1 AS index,
       freshet.readable(e.value) AS value, l.version, l.expires_at, l.key_bytes, e.value AS value_bytes
  FROM freshet.live_keys l
  JOIN freshet.keys k ON k.db = l.db AND k.key = l.key_bytes
  JOIN freshet.element e ON e.content = k.content
 WHERE k.kind = 2;

-- Live sets, a row for each member.
CREATE VIEW freshet.sets AS
SELECT l.db, l.key, freshet.readable(coalesce(e.name, e.field)) AS member,
       l.version, l.expires_at, l.key_bytes, coalesce(e.name, e.field) AS member_bytes
  FROM freshet.live_keys l
  JOIN freshet.keys k ON k.db = l.db AND k.key = l.key_bytes
  JOIN freshet.element e ON e.content = k.content
 WHERE k.kind = 3;

-- Live sorted sets, a row for each member.
CREATE VIEW freshet.sorted_sets AS
SELECT l.db, l.key, freshet.readable(coalesce(e.name, e.field)) AS member, e.rank AS score,
       l.version, l.expires_at, l.key_bytes, coalesce(e.name, e.field) AS member_bytes
  FROM freshet.live_keys l
  JOIN freshet.keys k ON k.db = l.db AND k.key = l.key_bytes
  JOIN freshet.element e ON e.content = k.content
 WHERE k.kind = 4;

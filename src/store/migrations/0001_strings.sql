-- Keys and strings; the fence; the proxies. docs: src/ARCHITECTURE.md

-- One row per key. A row whose kind is NULL is a tombstone: it keeps the
-- version of a deleted key until it is purged; its expires_ms says when it was
-- deleted. No column that changes is indexed, so that updates of an existing
-- key can be heap-only (HOT).
CREATE TABLE freshet.keys (
    db         smallint NOT NULL,                   -- 0 to 15
    key        bytea    NOT NULL,
    kind       smallint,                            -- 0: string; NULL: deleted
    version    bigint   NOT NULL,
    expires_ms bigint,                              -- Unix time in milliseconds
    value      bytea,                               -- a string's bytes
    PRIMARY KEY (db, key)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- Where SCAN and RANDOMKEY find a key: a position that never changes and fits a
-- cursor. 60 bits of the digest spread keys evenly. (No function of our own and
-- no CHECK: PostgreSQL would parse them again for every statement that writes.)
CREATE INDEX keys_scan ON freshet.keys (db, (('x' || substr(md5(key), 1, 15))::bit(60)::bigint));

DO $$
BEGIN
    ALTER TABLE freshet.keys ALTER COLUMN value SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL; -- a server built without lz4 keeps its default
END $$;

-- The highest version of a row that was purged: new rows start above it.
CREATE TABLE freshet.purge (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version   bigint  NOT NULL
);
INSERT INTO freshet.purge (version) VALUES (0);

-- The generation of the cache, what state it is in, and which server holds it.
CREATE TABLE freshet.fence (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    generation bigint  NOT NULL,
    state      text    NOT NULL CHECK (state IN ('active', 'closing', 'bypass')),
    run_id     text,
    changed_at timestamptz NOT NULL DEFAULT now(),
    reason     text    NOT NULL
);
INSERT INTO freshet.fence (generation, state, reason) VALUES (1, 'bypass', 'first start');

-- Every proxy that ever registered; one that is not alive commits nothing more.
CREATE TABLE freshet.proxy (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alive      boolean NOT NULL DEFAULT true,
    confirmed  bigint  NOT NULL DEFAULT 0,          -- generation up to which it obeys the fence
    name       text    NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
);

-- Which attempts of a proxy have committed, and which never may. A transaction
-- inserts its attempt's row; who wants to know what became of one inserts the same
-- row: that waits for an open transaction, fails if it committed, and otherwise
-- keeps it from ever committing. (A transaction id, asked for by pg_xact_status,
-- does not tell after a crash of this server: an id whose transaction left
-- nothing in the write-ahead log is given out again.)
CREATE TABLE freshet.attempt (
    proxy  integer NOT NULL,
    number bigint  NOT NULL,
    PRIMARY KEY (proxy, number)
);

-- Milliseconds since the Unix epoch, by this server's clock.
CREATE FUNCTION freshet.now_ms() RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- First statement of every write transaction: takes the shared locks on the
-- fence and on the proxy's registration, and tells what they protect. The
-- locks come first and the row is read by a later statement, so what it tells
-- stays true until the transaction ends. Leaves the mark of the attempt.
CREATE FUNCTION freshet.guard(
    proxy integer, attempt bigint,
    OUT generation bigint, OUT state text, OUT alive boolean, OUT now_ms bigint
)
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1179796819, 0), pg_advisory_xact_lock_shared(1179796820, proxy);
    INSERT INTO freshet.attempt VALUES (guard.proxy, guard.attempt);
    SELECT f.generation, f.state, p.alive, freshet.now_ms()
      INTO generation, state, alive, now_ms
      FROM freshet.fence f, freshet.proxy p WHERE p.id = guard.proxy;
END $$;

-- A whole transaction in one statement: guard, and a write of rows whatever was
-- there. Refuses with an error of its own, and so commits nothing, unless the
-- cache is in the given generation and state and the proxy is alive.
CREATE FUNCTION freshet.write_blind(
    proxy integer, attempt bigint, expected_generation bigint, expected_state text,
    dbs smallint[], names bytea[], kinds smallint[], expiries bigint[], contents bytea[],
    OUT now_ms bigint, OUT versions bigint[]
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    found record;
BEGIN
    found := freshet.guard(proxy, attempt);
    IF NOT found.alive THEN
        RAISE EXCEPTION 'proxy % is declared dead', proxy USING ERRCODE = 'FR002';
    ELSIF found.generation <> expected_generation OR found.state <> expected_state THEN
        RAISE EXCEPTION 'the fence has moved to generation %', found.generation USING ERRCODE = 'FR001';
    END IF;
    now_ms := found.now_ms;
    WITH written AS (
        INSERT INTO freshet.keys AS k (db, key, kind, version, expires_ms, value)
        SELECT u.db, u.key, u.kind, p.version + 1, u.expires_ms, u.value
          FROM freshet.purge p CROSS JOIN unnest(dbs, names, kinds, expiries, contents)
                 AS u (db, key, kind, expires_ms, value)
            ON CONFLICT (db, key) DO UPDATE
           SET kind = excluded.kind, version = k.version + 1,
               expires_ms = excluded.expires_ms, value = excluded.value
        RETURNING k.version
    )
    SELECT array_agg(written.version) INTO versions FROM written;
END $$;

-- For people: bytes as text where they are valid UTF-8, else as hexadecimal.
CREATE FUNCTION freshet.readable(bytes bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN '\x' || encode(bytes, 'hex');
END $$;

-- Live keys, readable.
CREATE VIEW freshet.live_keys AS
SELECT db,
       freshet.readable(key) AS key,
       CASE kind WHEN 0 THEN 'string' END AS type,
       version,
       CASE WHEN expires_ms < 253402300800000 THEN to_timestamp(expires_ms / 1000.0) 
            WHEN expires_ms IS NOT NULL THEN 'infinity' END AS expires_at,
       key AS key_bytes
  FROM freshet.keys
 WHERE kind IS NOT NULL AND (expires_ms IS NULL OR expires_ms > freshet.now_ms());

-- Live strings with their values, readable.
CREATE VIEW freshet.strings AS
SELECT l.db, l.key, freshet.readable(k.value) AS value, l.version, l.expires_at, l.key_bytes, k.value AS value_bytes
  FROM freshet.live_keys l JOIN freshet.keys k ON k.db = l.db AND k.key = l.key_bytes
 WHERE k.kind = 0;

-- Replies kept under tokens of clients (FRESHET.ONCE). docs: src/ARCHITECTURE.md

-- A row is written in the transaction of the unit whose reply it keeps, so it is
-- there exactly if the unit is committed. It is no data: no flush touches it.
CREATE TABLE freshet.once (
    token       bytea  NOT NULL PRIMARY KEY,    -- the client's; at most 255 bytes
    fingerprint bytea  NOT NULL,                -- SHA-256 of database, command and arguments
    reply       bytea  NOT NULL,                -- as src/resp/packed.rs has it
    ends_ms     bigint NOT NULL                 -- Unix time in milliseconds; kept at least until then
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- Rows only come at its right end and go at its left.
CREATE INDEX once_ends ON freshet.once (ends_ms);

DO $$
BEGIN
    ALTER TABLE freshet.once ALTER COLUMN reply SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL; -- a server built without lz4 keeps its default
END $$;

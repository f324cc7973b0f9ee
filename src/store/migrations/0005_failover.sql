-- Fail-over of the cache and of this server. docs: src/ARCHITECTURE.md

-- With run_id: which server holds this generation. One that was demoted and promoted again keeps
-- its run_id, not its replication id.
ALTER TABLE freshet.fence ADD COLUMN replication_id text;

-- For how long a proxy may use hits of the cache without news from here, in milliseconds.
ALTER TABLE freshet.proxy ADD COLUMN lease_ms bigint;

-- Which server this is, on which timeline, and how far its write-ahead log goes: NULL where it does
-- not tell. (A provider's PostgreSQL may not have these functions.)
CREATE FUNCTION freshet.server(OUT system bigint, OUT timeline integer, OUT lsn bigint)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    position pg_lsn := NULL;
BEGIN
    system := (SELECT system_identifier FROM pg_control_system());
    -- So far it survives a crash of this server; what is told before, where commits do not wait for the
    -- disk, may be lost by one, and then the log goes on from before it.
    IF current_setting('synchronous_commit') = 'off' THEN
        position := pg_current_wal_insert_lsn();
    ELSE
        position := pg_current_wal_flush_lsn();
    END IF;
    timeline := ('x' || substr(pg_walfile_name(position), 1, 8))::bit(32)::integer;
    lsn := (position - '0/0')::bigint;
EXCEPTION WHEN OTHERS THEN
    system := NULL;
    timeline := NULL;
    lsn := NULL;
END $$;

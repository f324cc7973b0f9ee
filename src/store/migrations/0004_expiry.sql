-- Where keys whose end has passed are found in order (see src/ARCHITECTURE.md,
-- Expiry, also for what it costs). One that was told of is a tombstone, and no longer in it.
CREATE INDEX keys_end ON freshet.keys (expires_ms) WHERE kind IS NOT NULL AND expires_ms IS NOT NULL;

-- Where scans of keys (HSCAN, SSCAN, ZSCAN) stand that the store answers. docs: src/ARCHITECTURE.md

-- A cursor that is not here begins anew, so the table may be lost.
-- field: the next element is this one or behind it, as freshet.element has it.
CREATE UNLOGGED TABLE freshet.scan (
    cursor  bigint PRIMARY KEY,
    field   bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX scan_made_at ON freshet.scan (made_at);

-- Scripts and libraries of functions, shared by all proxies. docs: src/ARCHITECTURE.md

CREATE TABLE freshet.script (
    sha       bytea PRIMARY KEY,    -- SHA-1 of the body
    body      bytea NOT NULL,
    is_loaded boolean NOT NULL,     -- by SCRIPT LOAD; else EVAL brought it, and it goes when nobody uses it
    used_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX script_used ON freshet.script (used_at) WHERE NOT is_loaded;

CREATE TABLE freshet.library (
    name text COLLATE "C" PRIMARY KEY,
    code bytea NOT NULL
);

-- One row: how often all scripts were deleted, and libraries changed.
CREATE TABLE freshet.script_epoch (
    scripts   bigint NOT NULL,
    libraries bigint NOT NULL
);
INSERT INTO freshet.script_epoch VALUES (0, 0);

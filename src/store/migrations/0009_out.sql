-- How far imports are, and what goes to other Redis servers. docs: src/ARCHITECTURE.md

-- Imports of files that are not over: all before this place is here.
CREATE TABLE freshet.import (
    source     text     NOT NULL,                   -- the file: its path, length and time
    pattern    text     NOT NULL,                   -- which of its keys
    bytes      bigint   NOT NULL,                   -- so many of the file,
    checksum   bigint   NOT NULL,                   -- which have this checksum;
    db         smallint NOT NULL,                   -- what follows is in this database
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, pattern)
);

-- Redis servers that are kept as the store is, each from a replication slot of its own.
CREATE TABLE freshet.replica (
    name       text COLLATE "C" PRIMARY KEY,
    slot       text     NOT NULL,
    url        text     NOT NULL,                   -- without its password
    patterns   text[]   NOT NULL,                   -- which keys are there
    phase      text     NOT NULL DEFAULT 'new' CHECK (phase IN ('new', 'snapshot', 'following')),
    epoch      bigint   NOT NULL DEFAULT 0,         -- counts snapshots;
    step       bigint   NOT NULL DEFAULT 0,         -- and steps: the replica notes both before this row does
    db         smallint NOT NULL DEFAULT 0,         -- where a snapshot goes on
    key        bytea    NOT NULL DEFAULT '',
    lsn        bigint   NOT NULL DEFAULT 0,         -- changes before this place in the log are there
    current_ms bigint,                              -- the replica is as the store was then (Unix time in milliseconds)
    error      text,                                -- why nothing goes on, since when
    error_at   timestamptz,
    configured_at timestamptz NOT NULL DEFAULT now() -- when a proxy last had it in its configuration
);

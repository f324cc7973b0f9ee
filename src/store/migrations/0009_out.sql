-- How far imports are. docs: src/ARCHITECTURE.md

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

-- What comparing the cache with the store found. docs: src/ARCHITECTURE.md

-- Runs of `freshet reconcile` and of the same in the background.
CREATE TABLE freshet.reconciliation (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pattern     text   NOT NULL,                    -- '*': all keys
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,                        -- NULL: not, or not yet
    keys        bigint,
    differences bigint,
    repaired    bigint
);

-- Keys of which the cache shows something else than the store, since when.
CREATE TABLE freshet.difference (
    db         smallint NOT NULL,
    key        bytea    NOT NULL,
    kind       text     NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen  timestamptz NOT NULL DEFAULT now(),
    absent_at  timestamptz,                         -- start of the last run that did not see it
    PRIMARY KEY (db, key)
);

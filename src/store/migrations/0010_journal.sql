-- How far the journal of write-behind keys is written. docs: src/ARCHITECTURE.md

-- No row: there has been no journal.
CREATE TABLE freshet.journal (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    incarnation text    NOT NULL,                   -- what the journal's server must hold as its mark
    replaced    text    NOT NULL,                   -- the mark before, while that is being replaced
    entry_ms    bigint  NOT NULL,                   -- the last entry that is written here: its two numbers
    entry_seq   bigint  NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now()
);

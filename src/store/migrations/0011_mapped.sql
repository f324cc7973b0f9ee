-- Tables of others whose rows are keys, too. docs: src/ARCHITECTURE.md
--
-- A mapped table's rows are kept as keys by triggers, in the transaction that changes them, with the
-- functions that every application has (freshet.set, freshet.hset). Clients' writes of these keys change the
-- row, and only through it the key.

CREATE TABLE freshet.mapping (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    template    text     NOT NULL UNIQUE,   -- of the keys: user:{id}
    relation    regclass NOT NULL,
    literals    text[]   NOT NULL,          -- before, between and behind the columns of the template
    columns     text[]   NOT NULL,          -- the columns of the template, which name one row
    shape       text     NOT NULL CHECK (shape IN ('hash', 'json', 'string')),
    shown       text,                       -- of 'string': the column that is shown
    is_deleted  boolean  NOT NULL,          -- DEL of a key deletes its row; else it is refused
    is_complete boolean  NOT NULL DEFAULT false,    -- the rows that were there before are keys, too
    filled_to   text[],                     -- up to this one, if not
    CHECK ((shape = 'string') = (shown IS NOT NULL))
);

-- A row's key; NULL if its columns cannot be found again in it, or one is NULL: then it is not shown.
CREATE FUNCTION freshet.mapped_key(literals text[], vals text[]) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    name text := literals[1];
BEGIN
    FOR at IN 1 .. cardinality(vals) LOOP
        IF vals[at] IS NULL OR literals[at + 1] <> '' AND strpos(vals[at], left(literals[at + 1], 1)) > 0 THEN
            RETURN NULL;
        END IF;
        name := name || vals[at] || literals[at + 1];
    END LOOP;
    RETURN convert_to(name, 'UTF8');
END $$;

-- The columns in a key; NULL if it has not the form.
CREATE FUNCTION freshet.mapped_columns(literals text[], key bytea) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    rest text := convert_from(key, 'UTF8');
    found_ text[] := '{}';
    behind text;
    place integer;
BEGIN
    IF NOT starts_with(rest, literals[1]) THEN
        RETURN NULL;
    END IF;
    rest := substr(rest, length(literals[1]) + 1);
    FOR at IN 2 .. cardinality(literals) LOOP
        behind := literals[at];
        place := CASE behind WHEN '' THEN length(rest) + 1 ELSE strpos(rest, behind) END;
        IF place = 0 OR behind <> '' AND strpos(left(rest, place - 1), left(behind, 1)) > 0 THEN
            RETURN NULL;
        END IF;
        found_ := found_ || left(rest, place - 1);
        rest := substr(rest, place + length(behind));
    END LOOP;
    RETURN CASE rest WHEN '' THEN found_ END;
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN NULL;
END $$;

-- What a row is shown as: the names of fields, and an SQL list of key and values of the row `source`.
CREATE FUNCTION freshet.mapped_list(m freshet.mapping, source text, OUT names bytea[], OUT list text)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key text := (SELECT string_agg(format('(%s).%I::text', source, u.name), ', ' ORDER BY u.ord)
                   FROM unnest(m.columns) WITH ORDINALITY u (name, ord));
BEGIN
    IF m.shape = 'json' THEN
        names := ARRAY['\x'::bytea];
        list := format('convert_to(to_jsonb(%s)::text, ''UTF8'')', source);
    ELSE
        SELECT array_agg(convert_to(a.attname, 'UTF8') ORDER BY a.attnum),
               string_agg(format(CASE a.atttypid WHEN 'bytea'::regtype THEN '(%1$s).%2$I'
                                 ELSE 'convert_to((%1$s).%2$I::text, ''UTF8'')' END, source, a.attname), ', ' ORDER BY a.attnum)
          INTO names, list
          FROM pg_attribute a
         WHERE a.attrelid = m.relation AND a.attnum > 0 AND NOT a.attisdropped
           AND (m.shown IS NULL OR a.attname = m.shown);
    END IF;
    list := format('freshet.mapped_key($2, ARRAY[%s]), ARRAY[%s]::bytea[]', key, list);
END $$;

-- Has a key show what the row holds now, of which `old` was shown before; NULL: nothing.
CREATE FUNCTION freshet.show_values(m freshet.mapping, key bytea, names bytea[], old bytea[], new bytea[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    fields bytea[];
    vals bytea[];
BEGIN
    IF m.shape <> 'hash' THEN
        IF new[1] IS NULL THEN
            PERFORM freshet.del(key);
        ELSIF old IS NULL OR new[1] IS DISTINCT FROM old[1] THEN
            PERFORM freshet.set(key, new[1]);
        END IF;
        RETURN;
    END IF;
    IF old IS NULL THEN
        PERFORM freshet.del(key);
    END IF;
    SELECT array_agg(u.name ORDER BY u.ord), array_agg(u.v ORDER BY u.ord) INTO fields, vals
      FROM unnest(names, new, old) WITH ORDINALITY u (name, v, o, ord)
     WHERE u.v IS NOT NULL AND (old IS NULL OR u.v IS DISTINCT FROM u.o);
    IF fields IS NOT NULL THEN
        PERFORM freshet.hset(key, fields, vals);
    END IF;
    SELECT array_agg(u.name) INTO fields FROM unnest(names, new, old) u (name, v, o) WHERE u.v IS NULL AND u.o IS NOT NULL;
    IF fields IS NOT NULL THEN
        PERFORM freshet.hdel(key, fields);
    END IF;
    fields := ARRAY(SELECT u.name FROM unnest(names, new) u (name, v) WHERE u.v IS NOT NULL);
    PERFORM FROM freshet.keys k
      WHERE k.db = 0 AND k.key = show_values.key AND k.kind = 1 AND k.size = cardinality(fields)
        AND NOT EXISTS (SELECT FROM freshet.element e WHERE e.content = k.content AND e.field <> ALL (fields));
    IF NOT FOUND AND old IS NOT NULL THEN
        -- Columns were added or dropped, or the row was there before the mapping and not shown yet.
        PERFORM freshet.show_values(m, key, names, NULL, new);
    END IF;
END $$;

-- Whoever changes the table need have no rights on Freshet's own.
CREATE FUNCTION freshet.show_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET "DateStyle" = 'ISO' SET "TimeZone" = 'UTC' SET "IntervalStyle" = 'postgres'
AS $$
DECLARE
    m freshet.mapping;
    list record;
    old_key bytea;
    new_key bytea;
    old_ bytea[];
    new_ bytea[];
BEGIN
    SELECT * INTO m FROM freshet.mapping WHERE id = TG_ARGV[0]::integer;
    list := freshet.mapped_list(m, '$1');
    IF TG_OP <> 'INSERT' THEN
        EXECUTE 'SELECT ' || list.list INTO old_key, old_ USING OLD, m.literals;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE 'SELECT ' || list.list INTO new_key, new_ USING NEW, m.literals;
    END IF;
    IF old_key IS NOT NULL AND old_key IS DISTINCT FROM new_key THEN
        PERFORM freshet.del(old_key);
    END IF;
    IF new_key IS NOT NULL THEN
        IF old_key IS DISTINCT FROM new_key THEN
            old_ := NULL;
        END IF;
        PERFORM freshet.show_values(m, new_key, list.names, old_, new_);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION freshet.hide_rows() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET "DateStyle" = 'ISO' SET "TimeZone" = 'UTC'
AS $$
BEGIN
    PERFORM freshet.hide_all(m) FROM freshet.mapping m WHERE m.id = TG_ARGV[0]::integer;
    RETURN NULL;
END $$;

CREATE FUNCTION freshet.hide_all(m freshet.mapping) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    list record := freshet.mapped_list(m, '"mapped row"');
    key bytea;
BEGIN
    FOR key IN EXECUTE format('SELECT r.* FROM %s "mapped row" CROSS JOIN LATERAL (SELECT %s) r', m.relation, list.list)
                 USING NULL::integer, m.literals LOOP
        PERFORM freshet.del(key) WHERE key IS NOT NULL;
    END LOOP;
END $$;

-- Has rows of a table be keys. The rows that are there already follow by freshet.show_rows. The same again
-- changes nothing but whether keys can be deleted.
CREATE FUNCTION freshet.map(template text, relation regclass, shape text, shown text DEFAULT NULL,
                            is_deleted boolean DEFAULT false) RETURNS integer
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    literals_ text[] := regexp_split_to_array($1, '\{[^{}]*\}');
    columns_ text[] := ARRAY(SELECT r[1] FROM regexp_matches($1, '\{([^{}]*)\}', 'g') r);
    known freshet.mapping;
    m freshet.mapping;
    column_ text;
BEGIN
    PERFORM pg_advisory_xact_lock(1179796831, 0);
    SELECT * INTO known FROM freshet.mapping k WHERE k.template = $1;
    IF FOUND THEN
        IF (known.relation, known.shape, known.shown) IS DISTINCT FROM ($2, $3, $4) THEN
            RAISE EXCEPTION 'ERR % is mapped otherwise: to % as %', $1, known.relation, known.shape
                USING ERRCODE = 'FR004', HINT = format('SELECT freshet.unmap(%L) ends that, and takes its keys away.', $1);
        END IF;
        UPDATE freshet.mapping k SET is_deleted = $5 WHERE k.id = known.id AND k.is_deleted <> $5;
        RETURN known.id;
    END IF;
    FOREACH column_ IN ARRAY columns_ || $4 LOOP
        IF column_ IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_attribute a
             WHERE a.attrelid = $2 AND a.attname = column_ AND a.attnum > 0 AND NOT a.attisdropped) THEN
            RAISE EXCEPTION 'ERR % has no column %', $2, column_ USING ERRCODE = 'FR004';
        END IF;
    END LOOP;
    IF NOT EXISTS (
        SELECT FROM pg_index i
         CROSS JOIN LATERAL (SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a
                                           WHERE a.attrelid = $2 AND a.attnum = ANY (i.indkey[0 : i.indnkeyatts - 1]))) c (names)
         WHERE i.indrelid = $2 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
           AND columns_ @> c.names AND c.names @> columns_) THEN
        RAISE EXCEPTION 'ERR % do not name one row of %: no unique index is on them', columns_, $2 USING ERRCODE = 'FR004';
    END IF;
    PERFORM FROM freshet.keys k
      WHERE k.db = 0 AND k.kind IS NOT NULL AND k.key >= convert_to(literals_[1], 'UTF8')
        AND (k.expires_ms IS NULL OR k.expires_ms > freshet.now_ms())
        AND freshet.mapped_columns(literals_, k.key) IS NOT NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'ERR there are keys of the form % already', $1
            USING ERRCODE = 'FR004', HINT = 'Delete or rename them: what a mapped table shows is in the table alone.';
    END IF;
    INSERT INTO freshet.mapping (template, relation, literals, columns, shape, shown, is_deleted)
    VALUES ($1, $2, literals_, columns_, $3, $4, $5) RETURNING * INTO m;
    EXECUTE format('CREATE TRIGGER freshet_show_%s AFTER INSERT OR UPDATE OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION freshet.show_row(%s)', m.id, $2, m.id);
    EXECUTE format('CREATE TRIGGER freshet_hide_%s BEFORE TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION freshet.hide_rows(%s)', m.id, $2, m.id);
    RETURN m.id;
END $$;

-- Ends it, and takes the keys away. How many mappings ended.
CREATE FUNCTION freshet.unmap(template text) RETURNS integer
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    m freshet.mapping;
BEGIN
    SELECT * INTO m FROM freshet.mapping k WHERE k.template = $1 FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    EXECUTE format('DROP TRIGGER IF EXISTS freshet_show_%s ON %s', m.id, m.relation);
    EXECUTE format('DROP TRIGGER IF EXISTS freshet_hide_%s ON %s', m.id, m.relation);
    PERFORM freshet.hide_all(m);
    DELETE FROM freshet.mapping k WHERE k.id = m.id;
    RETURN 1;
END $$;

-- The type of a column as a cast writes it, without a length: what is too long is refused, not cut.
CREATE FUNCTION freshet.column_type(relation regclass, name text) RETURNS text
LANGUAGE sql STABLE
AS $$
SELECT format('%I.%I', n.nspname, t.typname)
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
$$;

-- The columns of the key as values of their types, from texts in the parameter `texts` of a statement.
CREATE FUNCTION freshet.mapped_casts(m freshet.mapping, texts text) RETURNS text[]
LANGUAGE sql STABLE
AS $$
SELECT array_agg(format('((%s)[%s])::%s', texts, u.ord, freshet.column_type(m.relation, u.name)) ORDER BY u.ord)
  FROM unnest(m.columns) WITH ORDINALITY u (name, ord)
$$;

-- A list of names, as SQL has it.
CREATE FUNCTION freshet.quoted(names text[]) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$ SELECT string_agg(quote_ident(u.name), ', ' ORDER BY u.ord) FROM unnest(names) WITH ORDINALITY u (name, ord) $$;

-- Shows up to `most` rows that were there before the mapping, each call the next ones; how many.
CREATE FUNCTION freshet.show_rows(mapping integer, most integer) RETURNS integer
LANGUAGE plpgsql SET "DateStyle" = 'ISO' SET "TimeZone" = 'UTC' SET "IntervalStyle" = 'postgres'
AS $$
#variable_conflict use_column
DECLARE
    m freshet.mapping;
    list record;
    row_ record;
    columns_ text := '';
    bounds text := '';
    place text[];
    count_ integer := 0;
BEGIN
    SELECT * INTO m FROM freshet.mapping k WHERE k.id = $1 AND NOT k.is_complete FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    list := freshet.mapped_list(m, '"mapped row"');
    columns_ := (SELECT string_agg(format('"mapped row".%I', u.name), ', ' ORDER BY u.ord)
                   FROM unnest(m.columns) WITH ORDINALITY u (name, ord));
    bounds := array_to_string(freshet.mapped_casts(m, '$3'), ', ');
    FOR row_ IN EXECUTE format(
        'SELECT r.key, r.vals, ARRAY[%5$s] AS place
           FROM (SELECT * FROM %1$s "mapped row" WHERE $3 IS NULL OR (%2$s) > (%3$s) ORDER BY %2$s LIMIT %4$s FOR SHARE) "mapped row"
          CROSS JOIN LATERAL (SELECT %6$s) r (key, vals) ORDER BY %2$s',
        m.relation, columns_, bounds, $2,
        (SELECT string_agg(format('"mapped row".%I::text', u.name), ', ' ORDER BY u.ord)
           FROM unnest(m.columns) WITH ORDINALITY u (name, ord)),
        list.list) USING NULL::integer, m.literals, m.filled_to LOOP
        IF row_.key IS NOT NULL THEN
            PERFORM freshet.show_values(m, row_.key, list.names, NULL, row_.vals);
        END IF;
        place := row_.place;
        count_ := count_ + 1;
    END LOOP;
    UPDATE freshet.mapping k SET filled_to = coalesce(place, k.filled_to), is_complete = count_ < $2 WHERE k.id = m.id;
    RETURN count_;
END $$;

-- The keys that this transaction has changed so far, the first `most` of them. (A function of its own, so that
-- it sees what others of the same statement did.)
CREATE FUNCTION freshet.changed_here(most integer, OUT dbs smallint[], OUT names bytea[])
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    SELECT array_agg(c.db), array_agg(c.key) INTO dbs, names
      FROM (SELECT DISTINCT c.db, c.key FROM freshet.change c
             WHERE c.xact = pg_current_xact_id()::text::bigint LIMIT most) c;
END $$;

-- What follows is how clients' writes change rows.

-- The mapping, and the columns in the key.
CREATE FUNCTION freshet.mapped(template text, key bytea, OUT m freshet.mapping, OUT vals text[])
LANGUAGE plpgsql
AS $$
BEGIN
    SELECT * INTO m FROM freshet.mapping k WHERE k.template = mapped.template;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'ERR % is not mapped to a table', template USING ERRCODE = 'FR004';
    END IF;
    vals := freshet.mapped_columns(m.literals, key);
    IF vals IS NULL THEN
        RAISE EXCEPTION 'ERR the key does not have the form %', template USING ERRCODE = 'FR004';
    END IF;
END $$;

-- The condition that finds the row of a key, its columns being in $1 of the statement.
CREATE FUNCTION freshet.mapped_condition(m freshet.mapping) RETURNS text
LANGUAGE sql STABLE
AS $$
SELECT string_agg(format('t.%I = %s', u.name, u.value), ' AND ')
  FROM unnest(m.columns, freshet.mapped_casts(m, '$1')) u (name, value)
$$;

-- Refuses a key that is not written as PostgreSQL writes its columns (user:042): its row has another.
CREATE FUNCTION freshet.check_canonical(m freshet.mapping, key bytea, vals text[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    same text[];
    list text := (SELECT string_agg(format('(%s)::text', u.value), ', ' ORDER BY u.ord)
                    FROM unnest(freshet.mapped_casts(m, '$1')) WITH ORDINALITY u (value, ord));
BEGIN
    EXECUTE format('SELECT ARRAY[%s]', list) INTO same USING vals;
    IF freshet.mapped_key(m.literals, same) IS DISTINCT FROM key THEN
        RAISE EXCEPTION 'ERR the key of this row is written %', convert_from(freshet.mapped_key(m.literals, same), 'UTF8')
            USING ERRCODE = 'FR004';
    END IF;
END $$;

-- Refuses columns that are not there, are computed, or are part of the key. What is assigned to each then.
CREATE FUNCTION freshet.mapped_values(m freshet.mapping, fields text[]) RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    a pg_attribute;
    name text;
    all_ text[] := '{}';
BEGIN
    FOREACH name IN ARRAY fields LOOP
        SELECT * INTO a FROM pg_attribute p
         WHERE p.attrelid = m.relation AND p.attname = name AND p.attnum > 0 AND NOT p.attisdropped;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'ERR % has no column %', m.relation, name USING ERRCODE = 'FR004';
        ELSIF a.attgenerated <> '' OR a.attidentity = 'a' THEN
            RAISE EXCEPTION 'ERR the column % of % is computed by PostgreSQL', name, m.relation USING ERRCODE = 'FR004';
        ELSIF name = ANY (m.columns) THEN
            RAISE EXCEPTION 'ERR the column % is part of the key', name USING ERRCODE = 'FR004';
        END IF;
        all_ := all_ || format(CASE a.atttypid WHEN 'bytea'::regtype THEN '$2[%s]'
                               ELSE 'CAST(convert_from($2[%s], ''UTF8'') AS %s)' END,
                               cardinality(all_) + 1, freshet.column_type(m.relation, name));
    END LOOP;
    RETURN all_;
END $$;

-- Sets columns of a row, which is inserted if it is not there unless it `must_exist`; how many are no longer NULL
-- or, if all values are NULL, no longer anything.
CREATE FUNCTION freshet.row_set(template text, key bytea, fields text[], vals bytea[], must_exist boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET "DateStyle" = 'ISO' SET "TimeZone" = 'UTC' SET "IntervalStyle" = 'postgres'
AS $$
DECLARE
    found_ record := freshet.mapped(template, key);
    m freshet.mapping := found_.m;
    -- Of a field named twice, the last value counts.
    names text[] := ARRAY(SELECT u.name FROM unnest(fields) WITH ORDINALITY u (name, ord) GROUP BY u.name ORDER BY max(u.ord));
    last_ bytea[] := ARRAY(SELECT vals[max(u.ord)] FROM unnest(fields) WITH ORDINALITY u (name, ord) GROUP BY u.name ORDER BY max(u.ord));
    assigned text[] := freshet.mapped_values(m, names);
    columns_ text := freshet.quoted(names);
    nulls boolean[];
    done integer;
BEGIN
    PERFORM freshet.check_canonical(m, key, found_.vals);
    LOOP
        EXECUTE format('SELECT ARRAY[%s] FROM %s t WHERE %s FOR UPDATE',
                       (SELECT string_agg(format('t.%I IS NULL', u), ', ') FROM unnest(names) u), m.relation, freshet.mapped_condition(m))
           INTO nulls USING found_.vals;
        EXIT WHEN nulls IS NOT NULL;
        IF must_exist THEN
            RETURN 0;
        END IF;
        EXECUTE format('INSERT INTO %s (%s, %s) VALUES (%s, %s) ON CONFLICT (%s) DO NOTHING', m.relation,
                       freshet.quoted(m.columns), columns_,
                       array_to_string(freshet.mapped_casts(m, '$1'), ', '),
                       array_to_string(assigned, ', '),
                       freshet.quoted(m.columns))
          USING found_.vals, last_;
        GET DIAGNOSTICS done = ROW_COUNT;
        IF done > 0 THEN
            RETURN (SELECT count(u) FROM unnest(last_) u);
        END IF;
    END LOOP;
    EXECUTE format('UPDATE %s t SET (%s) = ROW(%s) WHERE %s', m.relation, columns_, array_to_string(assigned, ', '), freshet.mapped_condition(m))
      USING found_.vals, last_;
    RETURN (SELECT count(*) FROM unnest(nulls, last_) u (was_null, v) WHERE u.was_null = (u.v IS NOT NULL));
END $$;

-- Adds to a column, NULL or no row counting as 0; the sum.
CREATE FUNCTION freshet.row_add(template text, key bytea, field text, increment text) RETURNS text
LANGUAGE plpgsql SET "DateStyle" = 'ISO' SET "TimeZone" = 'UTC' SET "IntervalStyle" = 'postgres'
AS $$
DECLARE
    found_ record := freshet.mapped(template, key);
    m freshet.mapping := found_.m;
    assigned text := replace((freshet.mapped_values(m, ARRAY[field]))[1], '$2[1]', '$2');
    sum_ text;
BEGIN
    PERFORM freshet.check_canonical(m, key, found_.vals);
    LOOP
        EXECUTE format('UPDATE %s t SET %2$I = coalesce(t.%2$I, 0) + %3$s WHERE %4$s RETURNING t.%2$I::text',
                       m.relation, field, assigned, freshet.mapped_condition(m))
           INTO sum_ USING found_.vals, convert_to(increment, 'UTF8');
        IF sum_ IS NULL THEN
            EXECUTE format('INSERT INTO %s (%s, %I) VALUES (%s, %s) ON CONFLICT (%2$s) DO NOTHING RETURNING %3$I::text', m.relation,
                           freshet.quoted(m.columns), field,
                           array_to_string(freshet.mapped_casts(m, '$1'), ', '), assigned)
               INTO sum_ USING found_.vals, convert_to(increment, 'UTF8');
        END IF;
        IF sum_ IS NOT NULL THEN
            RETURN sum_;
        END IF;
    END LOOP;
END $$;

-- Replaces a row by a JSON object: columns that it does not name become NULL, or in a new row get their default.
CREATE FUNCTION freshet.row_replace(template text, key bytea, object jsonb) RETURNS void
LANGUAGE plpgsql SET "DateStyle" = 'ISO' SET "TimeZone" = 'UTC' SET "IntervalStyle" = 'postgres'
AS $$
DECLARE
    found_ record := freshet.mapped(template, key);
    m freshet.mapping := found_.m;
    name text;
    keys_ jsonb;
    named text[];
    others text[];
    done integer;
BEGIN
    PERFORM freshet.check_canonical(m, key, found_.vals);
    IF jsonb_typeof(object) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'ERR the value is no JSON object' USING ERRCODE = 'FR004';
    END IF;
    EXECUTE format('SELECT jsonb_build_object(%s)',
                   (SELECT string_agg(format('%L, %s', u.name, u.value), ', ')
                      FROM unnest(m.columns, freshet.mapped_casts(m, '$1')) u (name, value))) INTO keys_ USING found_.vals;
    FOREACH name IN ARRAY m.columns LOOP
        IF object -> name <> keys_ -> name THEN
            RAISE EXCEPTION 'ERR the column % is part of the key', name USING ERRCODE = 'FR004';
        END IF;
    END LOOP;
    named := ARRAY(SELECT u FROM jsonb_object_keys(object - m.columns) u);
    -- A computed column may be there, since reading shows it: it is left to PostgreSQL.
    others := ARRAY(SELECT a.attname FROM pg_attribute a
                     WHERE a.attrelid = m.relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (m.columns)
                       AND a.attgenerated = '' AND a.attidentity <> 'a' ORDER BY a.attnum);
    SELECT u INTO name FROM unnest(named) u
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = m.relation AND a.attname = u AND a.attnum > 0 AND NOT a.attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION 'ERR % has no column %', m.relation, name USING ERRCODE = 'FR004';
    END IF;
    LOOP
        EXECUTE format('UPDATE %1$s t SET %2$s FROM jsonb_populate_record(NULL::%1$s, $2) p WHERE %3$s', m.relation,
                       coalesce((SELECT string_agg(format('%1$I = p.%1$I', u), ', ') FROM unnest(others) u),
                                format('%1$I = t.%1$I', m.columns[1])),
                       freshet.mapped_condition(m)) USING found_.vals, object;
        GET DIAGNOSTICS done = ROW_COUNT;
        EXIT WHEN done > 0;
        named := ARRAY(SELECT u FROM unnest(named) u WHERE u = ANY (others)) || m.columns;
        EXECUTE format('INSERT INTO %1$s (%2$s) SELECT %3$s FROM jsonb_populate_record(NULL::%1$s, $2 || $1) p ON CONFLICT (%4$s) DO NOTHING',
                       m.relation, freshet.quoted(named),
                       (SELECT string_agg('p.' || quote_ident(u), ', ') FROM unnest(named) u),
                       freshet.quoted(m.columns)) USING keys_, object;
        GET DIAGNOSTICS done = ROW_COUNT;
        EXIT WHEN done > 0;
    END LOOP;
END $$;

-- Deletes the row of a key, if the mapping says so; how many were there.
CREATE FUNCTION freshet.row_delete(template text, key bytea) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    found_ record := freshet.mapped(template, key);
    m freshet.mapping := found_.m;
    done bigint;
BEGIN
    IF NOT m.is_deleted THEN
        RAISE EXCEPTION 'READONLY rows of % are not deleted by their keys; nothing was written', m.relation USING ERRCODE = 'FR004';
    END IF;
    PERFORM freshet.check_canonical(m, key, found_.vals);
    EXECUTE format('DELETE FROM %s t WHERE %s', m.relation, freshet.mapped_condition(m)) USING found_.vals;
    GET DIAGNOSTICS done = ROW_COUNT;
    RETURN done;
END $$;

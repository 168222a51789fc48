-- Who may do what in a ledger. Run it as the owner of the database, after `secateur db upgrade`,
-- and again after each later upgrade: it can be run any number of times.
--
--   secateur_reader    asks: SELECT, and nothing else
--   secateur_writer    runs agents: appends; changes what is derived, never a record; does not
--                      decide for a person and does not erase
--   secateur_reviewer  decides and erases: appends `decided`, `erased` and `noted` events alone,
--                      empties blobs that an erasure names, signs checkpoints
--
-- They are groups. Make a login for each person and each machine, so that the server's log tells
-- them apart:   CREATE ROLE agents_1 LOGIN PASSWORD '…' IN ROLE secateur_writer;

BEGIN;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['secateur_reader', 'secateur_writer', 'secateur_reviewer'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public
    FROM secateur_reader, secateur_writer, secateur_reviewer;
GRANT USAGE ON SCHEMA public TO secateur_reader, secateur_writer, secateur_reviewer;
GRANT SELECT ON ALL TABLES IN SCHEMA public
    TO secateur_reader, secateur_writer, secateur_reviewer;

-- The record: the writer appends to it.
GRANT INSERT ON policy, blob, run, event TO secateur_writer;

-- What is derived from the record: written with it, and changed by later events.
GRANT INSERT ON thought, tag_score TO secateur_writer;
GRANT UPDATE (status, reason, score) ON thought TO secateur_writer;
GRANT INSERT, UPDATE ON passage, passage_mark, passage_words TO secateur_writer;

-- A person's decision, an erasure, a checkpoint.
GRANT INSERT ON event, blob, decision, erasure, checkpoint TO secateur_reviewer;
GRANT UPDATE (status, reason, text, value) ON thought TO secateur_reviewer;
GRANT UPDATE (reason) ON decision TO secateur_reviewer;
GRANT UPDATE (bytes, salt) ON blob TO secateur_reviewer;
GRANT INSERT, UPDATE, DELETE ON passage, passage_mark, passage_words TO secateur_reviewer;

-- Which events each may append. Not row security: COPY, which the writer uses, knows none.
CREATE OR REPLACE FUNCTION secateur_may_append() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    needed text := CASE WHEN NEW.kind IN ('decided', 'erased') THEN 'secateur_reviewer'
                        ELSE 'secateur_writer' END;
BEGIN
    IF NOT pg_has_role(current_user, needed, 'USAGE') THEN
        RAISE EXCEPTION '% may not append % events: % may', current_user, NEW.kind, needed
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

-- `noted` is free to both.
CREATE OR REPLACE TRIGGER event_by_role BEFORE INSERT ON event
    FOR EACH ROW WHEN (NEW.kind <> 'noted') EXECUTE FUNCTION secateur_may_append();

COMMIT;

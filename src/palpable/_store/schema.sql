-- The newest version of the schema. A file of an older one is brought here by the scripts in migrations/.
--
-- Rows are addressed by the sequence number alone. There is no index on the random task ids: each new id would dirty an
-- index page of its own, and the server, which holds all ids in memory, would never look anything up in it.
-- What never changes (tasks) stands apart from what changes often (states), so that a change writes few pages.
-- SQLite has no checksums of its own. Rows that are mostly strings and bytes carry one, zlib.crc32 of these; see
-- sqlite_writing.py.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

-- Every start of a server on this file. The newest boot is the only one that may write.
CREATE TABLE boots (
    boot INTEGER PRIMARY KEY,
    started_at REAL NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL
);

CREATE TABLE tasks (
    sequence INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL,
    name TEXT NOT NULL,
    form TEXT NOT NULL,
    function_key TEXT NOT NULL,
    policy TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    parent_id TEXT NOT NULL,
    depth INTEGER NOT NULL CHECK (depth >= 0),
    checksum INTEGER NOT NULL
);

CREATE TABLE states (
    sequence INTEGER PRIMARY KEY,
    priority INTEGER NOT NULL, -- never changes; it stands here because unfinished tasks are read in its order
    state TEXT NOT NULL
        CHECK (state IN ('scheduled', 'ready', 'running', 'retrying', 'succeeded', 'failed', 'cancelled')),
    outcome TEXT NOT NULL,
    attempt INTEGER NOT NULL CHECK (attempt >= 0),
    boot INTEGER NOT NULL CHECK (boot >= 0),
    due_at REAL,
    started_at REAL,
    finished_at REAL,
    errors INTEGER NOT NULL CHECK (errors >= 0),
    crashes INTEGER NOT NULL CHECK (crashes >= 0),
    error_type TEXT NOT NULL,
    error_message TEXT NOT NULL,
    exit_status INTEGER,
    cpu_seconds REAL,
    peak_memory_bytes INTEGER,
    is_taken INTEGER NOT NULL CHECK (is_taken IN (0, 1)),
    followup_ids TEXT NOT NULL, -- a JSON list; '' for none
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))),
    CHECK ((outcome != '') = (state IN ('succeeded', 'failed', 'cancelled'))),
    CHECK ((outcome = 'succeeded') = (state = 'succeeded')),
    CHECK (is_taken = 0 OR finished_at IS NOT NULL)
);

CREATE TABLE requests (
    sequence INTEGER PRIMARY KEY,
    payload BLOB NOT NULL,
    checksum INTEGER NOT NULL
);

CREATE TABLE results (
    sequence INTEGER PRIMARY KEY,
    payload BLOB, -- NULL: it ended without a value
    traceback TEXT NOT NULL,
    checksum INTEGER NOT NULL
);

CREATE TABLE outputs (
    sequence INTEGER PRIMARY KEY,
    output BLOB NOT NULL,
    checksum INTEGER NOT NULL
);

CREATE TABLE functions (
    key TEXT PRIMARY KEY,
    data BLOB NOT NULL,
    checksum INTEGER NOT NULL
);

-- For people with the sqlite3 shell. The server does not use these. Times are UTC.

CREATE VIEW task_list AS
SELECT
    sequence,
    task_id,
    name,
    state,
    outcome,
    attempt,
    priority,
    strftime('%Y-%m-%dT%H:%M:%fZ', submitted_at, 'unixepoch') AS submitted,
    strftime('%Y-%m-%dT%H:%M:%fZ', due_at, 'unixepoch') AS due,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at, 'unixepoch') AS started,
    strftime('%Y-%m-%dT%H:%M:%fZ', finished_at, 'unixepoch') AS finished,
    round(finished_at - started_at, 3) AS elapsed_seconds,
    cpu_seconds,
    round(peak_memory_bytes / 1048576.0, 1) AS peak_memory_mib,
    error_type,
    error_message,
    exit_status,
    is_taken,
    parent_id,
    policy
FROM tasks JOIN states USING (sequence)
ORDER BY sequence;

CREATE VIEW queue AS
SELECT
    sequence,
    task_id,
    name,
    state,
    priority,
    attempt,
    strftime('%Y-%m-%dT%H:%M:%fZ', submitted_at, 'unixepoch') AS submitted,
    strftime('%Y-%m-%dT%H:%M:%fZ', due_at, 'unixepoch') AS due,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at, 'unixepoch') AS started
FROM tasks JOIN states USING (sequence)
WHERE finished_at IS NULL
ORDER BY priority DESC, sequence;

CREATE VIEW failures AS
SELECT
    sequence,
    task_id,
    name,
    outcome,
    attempt,
    errors,
    crashes,
    exit_status,
    error_type,
    error_message,
    strftime('%Y-%m-%dT%H:%M:%fZ', finished_at, 'unixepoch') AS finished,
    traceback
FROM tasks JOIN states USING (sequence) LEFT JOIN results USING (sequence)
WHERE state = 'failed'
ORDER BY finished_at DESC;

CREATE VIEW state_counts AS
SELECT state, outcome, count(*) AS tasks FROM states GROUP BY state, outcome;

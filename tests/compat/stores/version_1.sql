-- A store as version 1 of the schema has it, from `.dump`. Never changed once that version was released.
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA application_id = 1346456656;
PRAGMA user_version = 1;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;
INSERT INTO meta VALUES('last_sequence',5);
INSERT INTO meta VALUES('store_id','1b224a6a493d303d');
CREATE TABLE boots (
    boot INTEGER PRIMARY KEY,
    started_at REAL NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL
);
INSERT INTO boots VALUES(1,1795553952.3583705425,20765,'1.0.0');
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
INSERT INTO tasks VALUES(1,'task-1','double','call','key','{"isolation":"worker","retries":2}',1700000001.0,'',0,2975135855);
INSERT INTO tasks VALUES(2,'task-2','double','call','key','{"isolation":"worker","retries":2}',1700000002.0,'',0,842868908);
INSERT INTO tasks VALUES(3,'task-3','double','call','key','{"isolation":"worker","retries":2}',1700000003.0,'',0,1290115309);
INSERT INTO tasks VALUES(4,'task-4','double','call','key','{"isolation":"worker","retries":2}',1700000004.0,'task-1',1,3754393434);
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
INSERT INTO states VALUES(1,1,'ready','',0,0,NULL,NULL,NULL,0,0,'','',NULL,NULL,NULL,0,'');
INSERT INTO states VALUES(2,0,'running','',1,1,NULL,2000000000.0,NULL,0,0,'','',NULL,NULL,NULL,0,'');
INSERT INTO states VALUES(3,1,'succeeded','succeeded',1,1,NULL,2000000000.0,2000000001.0,0,0,'','',0,0.25,1024,0,'["task-9"]');
INSERT INTO states VALUES(4,0,'failed','error',1,1,NULL,2000000000.0,2000000001.0,1,0,'builtins.ValueError','no',NULL,NULL,NULL,0,'');
CREATE TABLE requests (
    sequence INTEGER PRIMARY KEY,
    payload BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
INSERT INTO requests VALUES(1,X'726571756573742031',240977300);
INSERT INTO requests VALUES(2,X'726571756573742032',2538886190);
INSERT INTO requests VALUES(4,X'726571756573742034',2117595419);
CREATE TABLE results (
    sequence INTEGER PRIMARY KEY,
    payload BLOB, -- NULL: it ended without a value
    traceback TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
INSERT INTO results VALUES(3,X'7069636b6c65642076616c7565','',1628863911);
INSERT INTO results VALUES(4,X'7069636b6c6564206572726f72','Traceback ...',3813169987);
CREATE TABLE outputs (
    sequence INTEGER PRIMARY KEY,
    output BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
INSERT INTO outputs VALUES(3,X'7072696e7465640a',4034486776);
CREATE TABLE functions (
    key TEXT PRIMARY KEY,
    data BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
INSERT INTO functions VALUES('key',X'7069636b6c65642066756e6374696f6e',3887960513);
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
COMMIT;

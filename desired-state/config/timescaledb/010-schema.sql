-- Run once, by the database image, when its volume is empty.
CREATE EXTENSION IF NOT EXISTS timescaledb;

CREATE TABLE IF NOT EXISTS plate_reads (
    seen_at     timestamptz NOT NULL,
    camera      text        NOT NULL,
    plate       text        NOT NULL,
    confidence  real        NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    image_key   text,       -- object in the MinIO bucket `plates`
    PRIMARY KEY (seen_at, camera, plate)
);

SELECT create_hypertable('plate_reads', 'seen_at', if_not_exists => TRUE);
SELECT add_retention_policy('plate_reads', INTERVAL '90 days', if_not_exists => TRUE);

-- "Where was this plate last?" is the question that query-api is asked most.
CREATE INDEX IF NOT EXISTS plate_reads_by_plate ON plate_reads (plate, seen_at DESC);

ALTER TABLE booking ADD COLUMN guest text NOT NULL DEFAULT 'nobody';

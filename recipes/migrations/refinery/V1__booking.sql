CREATE TABLE booking (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, night date NOT NULL);
INSERT INTO booking (night) SELECT DATE '2026-01-01' + n % 365 FROM generate_series(1, 20000) AS n;

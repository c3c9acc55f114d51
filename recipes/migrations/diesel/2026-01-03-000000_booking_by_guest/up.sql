CREATE INDEX CONCURRENTLY booking_by_guest ON booking (guest);

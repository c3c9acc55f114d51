DROP INDEX CONCURRENTLY booking_by_guest;

//! The locks that migration tools take by default. Each number comes from the tool's source.

use pglock::Key;
use pglock::compat::Scheme;

/// For a database and the schema in which its sessions create tables.
pub(crate) fn keys(database: &str, schema: &str) -> [(Key, &'static str); 6] {
    let crc = i64::from(crc32(database));
    // Neither product exceeds an i64.
    let (sqlx, rails) = (0x3d32_ad9e * crc, 2_053_462_845 * crc);
    let migrate = format!("{schema}\0schema_migrations\0{database}");
    let migrate = crc32(&migrate).wrapping_mul(1_486_364_155);
    [
        // prisma-engines, schema-engine/connectors/sql-schema-connector/src/flavour/postgres.rs,
        // `acquire_lock`
        (Key::from(72_707_369), "Prisma Migrate"),
        // pressly/goose, lock/session_locker_options.go, `DefaultLockID`: CRC-64 of "goose"
        (Key::from(5_887_940_537_704_921_958), "goose"),
        // salsita/node-pg-migrate, src/runner.ts, `PG_MIGRATE_LOCK_ID`
        (Key::from(7_241_865_325_823_964), "node-pg-migrate"),
        // launchbadge/sqlx, sqlx-postgres/src/migrate.rs, `generate_lock_id`
        (Key::from(sqlx), "sqlx migrate"),
        // rails/rails, activerecord/lib/active_record/migration.rb,
        // `generate_migrator_advisory_lock_id`
        (Key::from(rails), "Rails migrations"),
        // golang-migrate/migrate, database/util.go, `GenerateAdvisoryLockId`, with the schema and
        // the table that database/postgres/postgres.go defaults to
        (Key::from(i64::from(migrate)), "golang-migrate"),
    ]
}

/// The key of django-pglocks 1 is a name's CRC-32.
fn crc32(text: &str) -> u32 {
    let number = Scheme::DjangoPglocks.key(text).as_i64();
    number.unwrap_or_default() as u32
}

//! Connections that are cut at each point of the message.

use diesel::{Connection, PgConnection};
use pglock::{Error, Key, Lock, LockBackend};

use crate::oracle::{Oracle, Table, unique_key};
use crate::proxy::{Point, Proxy, Then};

#[test]
fn a_cut_leaves_nothing_held_and_is_told() {
    for point in [Point::Before, Point::After, Point::MidReply] {
        let proxy = Proxy::start();
        is_told(&proxy, point, &mut proxy.client());
        is_told(
            &proxy,
            point,
            &mut PgConnection::establish(&proxy.url()).unwrap(),
        );
    }
}

fn is_told(proxy: &Proxy, point: Point, backend: &mut impl LockBackend) {
    let (key, table, mut oracle): (Key, _, _) = (unique_key(), Table::new(), Oracle::new());
    proxy.at(&table.name, point, || Then::Cut);
    let error = Lock::new(backend, &key).batch_execute(&table.insert());
    let error = error.unwrap_err();
    let unknown = matches!(
        error,
        Error::ConnectionLost {
            committing: true,
            ..
        }
    );
    assert!(unknown, "{point:?}: {error:?}");
    oracle.wait_until_free(&key);
    assert_eq!(table.rows(), i64::from(point != Point::Before), "{point:?}");
}

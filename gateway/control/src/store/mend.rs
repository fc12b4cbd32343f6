//! What earlier versions stored and this one refuses: made what can be taken, so that a gateway that ran goes on.

use adit_ike::Id;
use rusqlite::Connection;
use serde_json::Value;

/// Mends every resource that needs it, all or none. Each is told of in the log.
///
/// # Errors
/// The database refuses.
pub(super) fn mend(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<[String; 4]> {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
    };
    let rows: Vec<_> = transaction
        .prepare("SELECT id, name, given, shown FROM resource")?
        .query_map((), read)?
        .collect::<rusqlite::Result<_>>()?;
    for [id, name, given, shown] in rows {
        let (now_given, now_shown) = (mended(&given), mended(&shown));
        if now_given.is_some() || now_shown.is_some() {
            tracing::warn!(
                "{name:?}: line breaks in its remark, or an identity that is too long, are changed"
            );
            let values = (now_given.unwrap_or(given), now_shown.unwrap_or(shown), id);
            transaction.execute("UPDATE resource SET given = ?1, shown = ?2 WHERE id = ?3", values)?;
        }
    }
    transaction.commit()
}

/// An object of JSON as it can be taken; `None` where it can already, or is for others to refuse.
fn mended(json: &str) -> Option<String> {
    let mut object: Value = serde_json::from_str(json).ok()?;
    let mut changed = false;
    let mut at = |pointer: &str, mend: fn(&str) -> Option<String>| {
        if let Some(Value::String(text)) = object.pointer_mut(pointer)
            && let Some(other) = mend(text)
        {
            *text = other;
            changed = true;
        }
    };
    at("/remark", printable);
    ["/local_id", "/ike/local_id", "/ike/peer_id"].into_iter().for_each(|pointer| at(pointer, shortened));
    changed.then(|| object.to_string())
}

fn printable(text: &str) -> Option<String> {
    text.contains(char::is_control).then(|| text.replace(char::is_control, " "))
}

/// The beginning of an identity that no message has room for: no peer knows us by that, but the tunnel is there, and what
/// it protects stays protected.
fn shortened(text: &str) -> Option<String> {
    let id: Id = text.parse().ok()?;
    let most = if matches!(id, Id::KeyId(_)) { "keyid:".len() + 2 * Id::LONGEST } else { Id::LONGEST };
    (!id.fits()).then(|| text[..text.floor_char_boundary(most)].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_versions_took_is_mended() {
        let long = "x".repeat(70_000);
        let keyid = format!("keyid:{}", "0a".repeat(40_000));
        let given =
            serde_json::json!({"remark": "a\u{1b}]0;b\nc", "ike": {"local_id": long, "peer_id": keyid}});
        let text = mended(&given.to_string()).unwrap();
        let mended_once: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(mended_once["remark"], "a ]0;b c");
        for id in ["local_id", "peer_id"] {
            assert!(mended_once["ike"][id].as_str().unwrap().parse::<Id>().unwrap().fits());
        }
        assert_eq!(mended(&text), None);
    }
}

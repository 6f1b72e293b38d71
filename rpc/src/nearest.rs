//! What somebody who misspelt a name probably meant.

/// More edits than this make another name.
const EDITS_MAX: usize = 4;

/// The candidate most like `given`, when one is like it at all: at most four edits, and no more than half
/// of its letters. Case and what joins words (`-`, `_`, `.`) do not count.
///
/// ```
/// use proofmill_rpc::nearest::nearest;
///
/// assert_eq!(nearest("chain_getHed", ["chain_getHead", "task_get"]), Some("chain_getHead"));
/// assert_eq!(nearest("anything", ["chain_getHead", "task_get"]), None);
/// ```
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['_', '.', '-'], "");
    let given = plain(given);
    candidates
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &plain(name)), name))
        .filter(|(edits, name)| *edits <= EDITS_MAX && *edits * 2 <= name.len())
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_is_named_and_what_is_unlike_all_is_not() {
        let names = ["rpc.listen", "log.level", "gas_limit"];
        assert_eq!(nearest("rpc.lisen", names), Some("rpc.listen"));
        assert_eq!(nearest("RPC_LISTEN", names), Some("rpc.listen"));
        assert_eq!(nearest("gaslimit", names), Some("gas_limit"));
        assert_eq!(nearest("entirely_other_words", names), None);
        assert_eq!(nearest("x", ["ab"]), None);
        assert_eq!(nearest("x", []), None);
    }
}

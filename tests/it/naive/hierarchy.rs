//! References to a resource that is part of another: `:below` and `:above`.

use super::table::Found;
use super::{BASE, Resources, reference};

type Target = (String, String);

/// Whether the reference leads to the resource that is asked for, or to a part of it.
pub fn is_below(resources: &Resources, found: &Found, wanted: &str) -> bool {
    target(found).is_some_and(|there| wholes(resources, there).iter().any(|whole| is(whole, wanted)))
}

/// Whether the reference leads to the resource that is asked for, or to what it is a part of.
pub fn is_above(resources: &Resources, found: &Found, wanted: &str) -> bool {
    let Some((type_name, id)) = target(found) else { return false };
    let asked = wanted.strip_prefix(BASE).map_or(wanted, |rest| rest.trim_start_matches('/'));
    // An id alone is one of the type that is referred to: none of the parameters asked for can refer to two types.
    let asked = asked.split_once('/').map_or((type_name.clone(), asked.to_owned()), |(t, i)| (t.to_owned(), i.to_owned()));
    wholes(resources, asked).contains(&(type_name, id))
}

fn target(found: &Found) -> Option<Target> {
    reference::local(found).map(|(type_name, id)| (type_name.to_owned(), id.to_owned()))
}

fn is((type_name, id): &Target, wanted: &str) -> bool {
    wanted == id || wanted == format!("{type_name}/{id}") || wanted == format!("{BASE}/{type_name}/{id}")
}

/// The resource itself, and all that it is a part of; some are parts of themselves.
fn wholes(resources: &Resources, of: Target) -> Vec<Target> {
    let mut all = vec![of];
    let mut next = 0;
    while let Some((type_name, id)) = all.get(next) {
        let here = resources.get(type_name, id);
        let upper: Vec<Target> = here.into_iter().flat_map(|r| resources.table.found(r, "partof")).filter_map(|f| target(&f)).collect();
        for one in upper {
            if !all.contains(&one) {
                all.push(one);
            }
        }
        next += 1;
    }
    all
}

//! Pages of long lists: how many items, and where to go on.

use domain::{Invalid, limits};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How a list is paged.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Items on the page, 1 to 200; 50 when absent.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    pub(crate) limit: Option<String>,
    /// The `nextCursor` of the page before.
    pub(crate) after: Option<String>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page<T> {
    /// The items.
    pub(crate) items: Vec<T>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// The number of items asked for.
pub(crate) fn limit(text: Option<&str>) -> Result<usize, Invalid> {
    let Some(text) = text else { return Ok(limits::PAGE_ITEMS_DEFAULT) };
    let wanted: Option<usize> = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let range = 1..=limits::PAGE_ITEMS;
    wanted
        .filter(|wanted| range.contains(wanted))
        .ok_or_else(|| Invalid::new("limit", format!("must be a number from 1 to {}", limits::PAGE_ITEMS)))
}

/// Cuts what was read with one item to spare down to `limit` and names the last item if more follow.
pub(crate) fn cut<T>(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(cursor) } else { None };
    (items, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_1_to_200_items() {
        assert_eq!(limit(None), Ok(50));
        assert_eq!((limit(Some("1")), limit(Some("200"))), (Ok(1), Ok(200)));
        for bad in ["", "0", "201", "-1", "+5", "1.5", "ten", "99999999999999999999999"] {
            assert_eq!(limit(Some(bad)).expect_err(bad).field, "limit");
        }
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        assert_eq!(cut(vec![1, 2, 3], 2, ToString::to_string), (vec![1, 2], Some("2".to_owned())));
        assert_eq!(cut(vec![1, 2], 2, ToString::to_string), (vec![1, 2], None));
        assert_eq!(cut(Vec::<i32>::new(), 2, ToString::to_string), (vec![], None));
    }
}

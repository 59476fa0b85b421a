//! Events and spans of the crate `tracing`, forwarded to the host.

/// Works through so many orders and says so in structured events.
#[wasmpool_guest::task]
pub fn orders(count: u32) -> u64 {
    let _day = tracing::info_span!("day").entered();
    tracing::info!(count, "the orders of the \"day\"");
    let total = (1..=count).map(order).sum();
    tracing::warn!(total, average = total as f64 / f64::from(count), "closed");
    total
}

fn order(number: u32) -> u64 {
    let _order = tracing::debug_span!("order", number).entered();
    let value = u64::from(number) * 100;
    let paid = number.is_multiple_of(2);
    tracing::debug!(number, value, customer = "Größe & Söhne\n", paid);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_add_up() {
        assert_eq!(orders(3), 600);
    }
}

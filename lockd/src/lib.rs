//! Pure lock tables: byte ranges, share reservations, blocked requests.

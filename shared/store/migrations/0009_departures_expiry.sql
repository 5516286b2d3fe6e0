-- Departures go with the changes that tell them: old ones are removed, oldest first.
CREATE INDEX room_departures_expiry ON room_departures (left_at);

-- Refusals are kept for a time and then removed, oldest first.
CREATE INDEX refused_jobs_expiry ON refused_jobs (refused_at);

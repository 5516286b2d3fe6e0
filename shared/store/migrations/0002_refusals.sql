-- Refusals are kept for a time and then removed, oldest first. Whose event it was and what its sender
-- is told stands there too (a job without effect has neither): whoever was away is told on coming back.
ALTER TABLE refused_jobs ADD COLUMN user_id UUID;
ALTER TABLE refused_jobs ADD COLUMN failure BYTEA;
CREATE INDEX refused_jobs_expiry ON refused_jobs (refused_at);
CREATE INDEX refused_jobs_user ON refused_jobs (user_id, refused_at) WHERE user_id IS NOT NULL;

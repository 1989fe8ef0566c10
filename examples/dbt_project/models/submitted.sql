-- Sends the prompts: one row per job. Run again with the same prompts, it finds the jobs and costs nothing.
FROM mistral_batch_submit('{{ ref("prompts") }}', system := 'Summarise in one sentence.')

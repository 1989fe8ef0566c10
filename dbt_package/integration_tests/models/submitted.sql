{{ duckdb_mistral.mistral_submit(ref('tickets_as_prompts'), custom_id='id', system='Summarise.') }}

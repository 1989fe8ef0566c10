-- models/submitted.sql
{{ duckdb_mistral.mistral_submit(ref('prompts'), system='Summarise in five words.') }}
